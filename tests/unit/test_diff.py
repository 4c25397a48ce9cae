"""Field-by-field comparison of two versions of an object."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.diff import FieldChange, compare, without_credentials


def deployment(*containers, replicas=2):
    return {
        "kind": "Deployment",
        "metadata": {"name": "churn", "resourceVersion": "7", "managedFields": [{"manager": "x"}]},
        "spec": {"replicas": replicas, "template": {"spec": {"containers": list(containers)}}},
        "status": {"replicas": 1},
    }


def test_equal_objects_have_no_difference():
    assert compare(deployment(), deployment()) == ()


def test_a_changed_field_names_its_path_and_both_values():
    assert compare(deployment(), deployment(replicas=3)) == (FieldChange("spec.replicas", 2, 3),)


def test_what_the_server_writes_is_no_difference():
    new = deployment()
    new["metadata"] |= {"resourceVersion": "8", "generation": 4, "uid": "u"}
    new["status"] = {"replicas": 9}
    assert compare(deployment(), new) == ()


def test_an_inserted_container_is_one_addition_and_not_two_changes():
    model, sidecar = {"name": "model", "image": "a"}, {"name": "sidecar", "image": "b"}
    changes = compare(deployment(model), deployment(sidecar, model))
    assert changes == (FieldChange("spec.template.spec.containers[sidecar]", None, sidecar),)


def test_a_field_of_a_list_item_is_named_by_the_items_key():
    changes = compare(deployment({"name": "model", "image": "a"}), deployment({"name": "model", "image": "b"}))
    assert changes == (FieldChange("spec.template.spec.containers[model].image", "a", "b"),)


def test_a_new_order_of_items_is_a_difference_of_its_own():
    a, b = {"name": "a"}, {"name": "b"}
    (change,) = compare(deployment(a, b), deployment(b, a))
    assert change.path == "spec.template.spec.containers (order)"


def test_true_and_one_are_different_values():
    assert compare({"metadata": {}, "spec": {"x": True}}, {"metadata": {}, "spec": {"x": 1}}) != ()


def test_values_of_a_secret_never_leave_and_neither_does_their_length():
    old = {"kind": "Secret", "metadata": {"name": "s"}, "data": {"token": "cGxhbnRlZA=="}}
    new = {"kind": "Secret", "metadata": {"name": "s"}, "data": {"token": "b3RoZXI=", "more": "eA=="}}
    changes = compare(old, new)
    assert [change.path for change in changes] == ["data.token", "data.more"]
    assert all(text not in repr(changes) for text in ("cGxhbnRlZA", "b3RoZXI", "eA=="))


def test_a_value_beside_a_name_that_speaks_of_a_credential_is_hidden():
    old = deployment({"name": "model", "env": [{"name": "LOG_LEVEL", "value": "info"}]})
    planted = [{"name": "LOG_LEVEL", "value": "debug"}, {"name": "DB_PASSWORD", "value": "planted"}]
    changes = compare(old, deployment({"name": "model", "env": planted}))
    assert "planted" not in repr(changes)
    assert FieldChange("spec.template.spec.containers[model].env[LOG_LEVEL].value", "info", "debug") in changes


def test_a_credential_inside_a_whole_new_object_is_hidden_too():
    container = {"name": "sidecar", "env": [{"name": "API_KEY", "value": "planted"}]}
    assert "planted" not in repr(compare(deployment(), deployment(container)))
    data = {"kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"token": "planted", "level": "info"}}
    empty = {"kind": "ConfigMap", "metadata": {"name": "m"}}
    assert "planted" not in repr(compare(empty, data))
    assert "info" in repr(compare(empty, data))


def test_which_secret_is_read_is_shown():
    def reading(secret):
        reference = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": secret, "key": "value"}}}
        return deployment({"name": "model", "env": [reference]})

    (change,) = compare(reading("one"), reading("two"))
    assert (change.old, change.new) == ("one", "two")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgres://ada:planted@db:5432/churn", "postgres://(hidden)@db:5432/churn"),
        ("postgres://ada:pla/nted@db/churn", "postgres://(hidden)@db/churn"),
        ("https://planted@git.example.com/models#churn", "https://(hidden)@git.example.com/models#churn"),
        ("ssh://git@git.example.com/models#churn", "ssh://git@git.example.com/models#churn"),
        ("https://h/x?token=planted&key=planted#a=planted", "https://h/x?token=(hidden)&key=(hidden)#a=(hidden)"),
        ("https://h/x?planted", "https://h/x?(hidden)"),
        ("https://h:8080/a@2.0/b?q=", "https://h:8080/a@2.0/b?q="),
        ('{"to": ["redis://:planted@cache", "http://h/a"]}', '{"to": ["redis://(hidden)@cache", "http://h/a"]}'),
        ("is 1 > 0 ? a=b : c", "is 1 > 0 ? a=b : c"),
    ],
)
def test_a_url_is_shown_without_who_asks_and_what_its_query_holds(url, shown):
    assert without_credentials(url) == shown


def test_a_url_in_an_object_is_masked_and_a_difference_in_what_is_hidden_is_still_one():
    def reading(password):
        return deployment({"name": "model", "env": [{"name": "DB", "value": f"postgres://ada:{password}@db/churn"}]})

    assert compare(reading("planted-1"), reading("planted-2")) == (
        FieldChange("spec.template.spec.containers[model].env[DB].value", "(hidden, old)", "(hidden, new)"),
    )
    assert "planted" not in repr(compare(deployment(), reading("planted")))


def test_what_kubectl_has_written_down_of_a_secret_is_hidden_too():
    def applied(value):
        annotation = {"kubectl.kubernetes.io/last-applied-configuration": f'{{"data": {{"a": "{value}"}}}}'}
        return {"kind": "Secret", "metadata": {"name": "s", "annotations": annotation}}

    assert "planted" not in repr(compare(applied("planted-1"), applied("planted-2")))


def test_a_key_with_dots_or_slashes_stands_in_brackets():
    old = {"metadata": {"labels": {"a.b/c": "1"}}}
    (change,) = compare(old, {"metadata": {"labels": {"a.b/c": "2"}}})
    assert change.path == "metadata.labels[a.b/c]"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "a", "b"]), inner, max_size=3),
    max_leaves=12,
)


@given(json_values, json_values)
def test_objects_differ_exactly_when_a_difference_is_found(old, new):
    import orjson

    changes = compare({"metadata": {}, "spec": {"x": old}}, {"metadata": {}, "spec": {"x": new}})
    same = orjson.dumps(old, option=orjson.OPT_SORT_KEYS) == orjson.dumps(new, option=orjson.OPT_SORT_KEYS)
    assert bool(changes) is not same or (old is None) != (new is None) or _differ_by_null(old, new)


def _differ_by_null(old, new):
    """A null and an absent field are one to us, as they are to the API."""
    return "null" in str([old, new]).replace("None", "null")
