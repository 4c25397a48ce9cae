"""The security list: what attackers of GitOps engines have tried, and which tests hold it off.

T01 to T80 come from the advisories of Argo CD, Flux, Kargo, Crossplane, Helm and Kubernetes. Each number has tests, by
file and function, and a note where something of it cannot be tested yet. A test that is renamed or removed is noticed
here; so is a number that nobody keeps.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

TESTS = Path(__file__).parents[1]


class Threat(NamedTuple):
    """What somebody tries. `tests` by file: the names of functions. `lacking`: what of it is not there, and why."""

    what: str
    tests: dict[str, tuple[str, ...]]
    lacking: str = ""


NUMBERS = (
    *("T01", "T02", "T03", "T04", "T05", "T06", "T07", "T08", "T10", "T11", "T12", "T20", "T21", "T30", "T31", "T32"),
    *("T33", "T40", "T41", "T42", "T43", "T44", "T45", "T46", "T50", "T51", "T60", "T61", "T62", "T63", "T70", "T80"),
)

LIST: dict[str, Threat] = {
    "T01": Threat(
        "links in the repository: out of it, absolute, in chains and circles, folders, .git",
        {
            "unit/test_source.py": (
                "test_a_link_that_leaves_the_folder_or_leads_nowhere_is_refused_and_named",
                "test_a_given_folder_that_is_a_link_is_followed_but_not_out_of_the_current_folder",
            ),
            "contract/test_source_mirror.py": (
                "test_a_link_that_leads_elsewhere_is_refused_as_a_pull_request_refuses_it",
                "test_a_path_that_is_a_link_is_not_followed",
            ),
        },
    ),
    "T02": Threat(
        "steps upwards, absolute paths, NUL, backslashes and 4,096 characters in every field that is a path",
        {
            "unit/test_tenancy.py": (
                "test_no_path_of_a_spec_leads_elsewhere",
                "test_a_path_in_the_repository_is_relative_and_plain",
                "test_the_folder_of_a_model_is_not_gits_own",
            ),
            "contract/test_source_mirror.py": (
                "test_a_path_that_could_lead_anywhere_is_refused",
                "test_a_path_is_no_pattern_and_no_option",
            ),
            "contract/test_source_git_paths.py": ("test_a_path_that_leads_out_of_the_repository_is_told",),
        },
    ),
    "T03": Threat(
        "addresses and refs that are options or programs to git: ext::, -oProxyCommand, --upload-pack, line breaks",
        {
            "unit/test_source.py": (
                "test_every_other_address_is_refused_before_git_sees_it",
                "test_what_cannot_be_a_branch_is_refused",
                "test_no_text_gets_an_option_a_program_or_a_line_break_past_the_check",
            ),
            "contract/test_source_mirror.py": (
                "test_an_address_that_git_must_not_see_is_refused",
                "test_what_cannot_be_a_branch_is_refused",
                "test_only_the_full_id_of_a_commit_is_asked_for",
            ),
        },
    ),
    "T04": Threat(
        "hooks, submodules, filters, settings and credentials of whoever runs git",
        {
            "contract/test_source_git.py": (
                "test_nothing_of_the_callers_git_reaches_ours",
                "test_no_credentials_of_the_caller_are_used",
                "test_git_gets_an_environment_made_from_nothing",
                "test_nothing_of_the_callers_ssh_is_used",
            ),
            "contract/test_source_git_paths.py": ("test_hooks_and_settings_of_the_repository_do_nothing_here",),
            "contract/test_source_mirror.py": (
                "test_nothing_that_a_repository_brings_is_run_or_followed",
                "test_hooks_in_the_folder_of_the_mirror_are_not_run",
            ),
        },
    ),
    "T05": Threat(
        "a redirect takes the credentials to another host",
        {
            "contract/test_source_git.py": (
                "test_a_redirect_is_not_followed_so_no_token_goes_to_another_host",
                "test_a_token_is_not_sent_to_the_next_repository",
            ),
            "contract/test_source_mirror.py": ("test_a_redirect_is_not_followed_and_no_token_leaves",),
            "contract/test_cluster_edge.py": ("test_credentials_do_not_follow_a_redirect",),
            "contract/test_notify.py": ("test_a_redirect_is_not_followed",),
        },
    ),
    "T06": Threat(
        "addresses that only this machine or its cloud reaches",
        {
            "contract/test_source_mirror.py": ("test_link_local_addresses_are_refused_however_they_are_written",),
            "contract/test_notify.py": (
                "test_an_address_that_only_this_machine_reaches_is_refused_however_it_is_spelled",
                "test_what_was_checked_is_what_is_connected_to",
            ),
        },
    ),
    "T07": Threat(
        "a repository with a blob of a gigabyte, a million files or a million refs",
        {
            "unit/test_source.py": (
                "test_a_file_over_the_limit_is_told_and_not_read",
                "test_the_limits_of_the_whole_end_reading_and_say_so",
            ),
            "contract/test_source_mirror.py": (
                "test_a_file_over_the_limit_is_told_by_its_size_and_not_read",
                "test_a_pack_over_the_limit_is_not_kept",
                "test_very_many_files_end_reading_at_the_limit",
                "test_very_many_branches_are_asked_for_and_not_fetched",
            ),
            "contract/test_source_git.py": ("test_an_answer_without_an_end_does_not_fill_the_memory",),
        },
    ),
    "T08": Threat(
        "rewritten history, and commits that nobody or somebody else signed",
        {
            "contract/test_source_mirror.py": (
                "test_a_rewound_branch_is_noticed",
                "test_a_branch_that_moves_between_the_check_and_the_reading_changes_nothing",
            ),
            "contract/test_signatures.py": (
                "test_a_commit_without_a_signature_does_not_count",
                "test_an_ssh_key_that_nobody_allowed_is_unknown",
                "test_an_openpgp_key_that_nobody_named_is_unknown",
                "test_a_changed_commit_has_a_bad_signature",
                "test_a_changed_commit_has_a_bad_openpgp_signature",
            ),
            "e2e/test_daemon.py": ("test_a_rewound_branch_deletes_nothing_by_itself",),
        },
    ),
    "T10": Threat(
        "YAML: bombs, depth, size, duplicate keys, tags, keys that are no text, YAML 1.1, control characters",
        {
            "unit/test_reader.py": (
                "test_every_rule_names_the_line_and_the_column",
                "test_what_yaml_1_1_and_1_2_read_differently_is_refused_with_the_fix",
                "test_a_key_is_text",
                "test_a_number_is_finite",
                "test_invisible_characters_are_refused",
                "test_an_alias_bomb_is_refused_and_not_expanded",
                "test_a_hundred_thousand_levels_neither_crash_nor_hang",
                "test_ten_thousand_levels_of_indentation_are_too_deep",
                "test_a_hundred_megabytes_are_refused_unread",
            ),
            "unit/test_cluster_access.py": ("test_a_kubeconfig_that_is_data_costs_little_however_it_is_written",),
            "fuzz/test_fuzz.py": ("test_a_target_takes_whatever_strangers_write",),
        },
    ),
    "T11": Threat(
        "schemas and patterns that cost time or fetch something",
        {
            "unit/test_specs_schema.py": (
                "test_every_reference_of_the_schema_is_inside_it_so_nothing_is_fetched",
                "test_the_schema_has_no_circle_so_that_depth_is_bounded_by_it",
                "test_no_pattern_can_be_made_slow",
                "test_a_list_as_long_as_a_file_allows_takes_moments",
            ),
            "unit/renderers/test_audiences.py": ("test_a_regular_expression_cannot_hang_the_evaluator",),
            "unit/renderers/test_automata.py": (
                "test_a_text_as_long_as_the_language_allows_takes_moments",
                "test_what_would_grow_without_bound_is_refused_at_once",
            ),
            "unit/test_sql_statements.py": ("test_16_kilobytes_of_anything_are_judged_in_a_second",),
        },
    ),
    "T12": Threat(
        "an error without a place, and errors that hide others",
        {
            "unit/test_specs_problems.py": ("test_a_mistake_is_shown_where_it_is_with_what_to_write_instead",),
            "unit/test_specs_schema.py": ("test_every_document_is_answered_with_problems_that_have_a_place",),
            "unit/test_specs_isolation.py": (
                "test_all_problems_of_all_files_are_told_at_once_in_the_order_of_the_files",
            ),
        },
    ),
    "T20": Threat(
        "one bad spec stops the others",
        {
            "unit/test_specs_isolation.py": (
                "test_a_mistake_is_told_once_and_costs_one_model",
                "test_an_unreadable_file_costs_what_it_mentions",
            ),
            "unit/test_specs_problems.py": ("test_no_regular_expression_stops_the_specs_beside_it",),
            "e2e/test_daemon.py": ("test_a_broken_spec_stops_deletions_and_nothing_else",),
        },
    ),
    "T21": Threat(
        "one poisoned object, record or cluster stops the others",
        {
            "unit/test_quarantine.py": (
                "test_what_keeps_failing_is_tried_after_twice_the_time_and_at_last_every_five_minutes",
                "test_a_thousand_failures_of_one_model_make_no_other_wait",
            ),
            "contract/test_apply.py": (
                "test_one_refused_object_stops_what_needs_it_and_nothing_else",
                "test_a_webhook_that_cannot_be_called_for_one_object_stops_no_other",
            ),
            "contract/test_cache.py": ("test_odd_objects_in_lists_and_watches_stop_nobody",),
            "contract/test_ledger.py": ("test_a_record_that_cannot_be_read_is_told_and_left_out",),
            "e2e/test_daemon.py": ("test_one_cluster_that_never_answers_costs_the_other_nothing",),
        },
    ),
    "T30": Threat(
        "killed after any request",
        {
            "e2e/test_killed.py": ("test_a_run_that_is_killed_is_completed_by_the_next_one",),
            "e2e/test_promotion_faults.py": ("test_runs_that_are_killed_are_completed_by_the_next",),
        },
    ),
    "T31": Threat(
        "any answer of a server, or none, to any request",
        {
            "e2e/test_faults.py": ("test_a_run_meets", "test_whatever_happens_once_the_next_run_mends"),
            "contract/test_cluster_edge.py": (
                "test_a_fault_at_any_request_of_a_pass_changes_nothing_in_its_outcome",
                "test_an_update_whose_answer_is_lost_is_not_sent_again",
            ),
            "unit/test_cluster_errors.py": ("test_each_refusal_has_the_class_that_says_how_to_react",),
        },
    ),
    "T32": Threat(
        "two replicas that both believe to lead",
        {
            "contract/test_lease.py": (
                "test_a_leader_that_is_cut_off_writes_nothing_after_its_deadline_and_does_not_come_back_by_force",
                "test_no_write_passes_a_closed_fence_and_every_read_does",
            ),
            "e2e/test_daemon_leaders.py": ("test_a_leader_that_was_frozen_wakes_up_to_write_nothing",),
            "e2e/test_promotion.py": ("test_two_reconcilers_at_once_do_everything_once",),
        },
    ),
    "T33": Threat(
        "clocks that jump",
        {
            "unit/test_lease.py": ("test_a_leader_keeps_leading_while_all_wall_clocks_jump_about",),
            "unit/test_triggers.py": ("test_a_clock_that_went_back_is_waited_for",),
            "unit/test_events.py": ("test_a_clock_that_is_set_back_stops_nothing",),
        },
    ),
    "T40": Threat(
        "specs that could be read or rendered in part, or not at all",
        {
            "unit/test_prune_guards.py": ("test_no_accident_deletes_anything_by_itself",),
            "unit/test_plan.py": ("test_nothing_is_deleted_while_the_specs_have_errors",),
            "contract/test_apply.py": (
                "test_deletes_nothing_while_the_specs_have_errors",
                "test_deletes_nothing_when_the_second_look_fails",
                "test_an_incomplete_render_makes_the_inventory_forget_nothing",
            ),
        },
    ),
    "T41": Threat(
        "a folder renamed, a file deleted, another branch, the wrong path",
        {
            "unit/test_prune_guards.py": (
                "test_no_accident_deletes_anything_by_itself",
                "test_what_cannot_be_read_can_be_approved_by_nobody_or_only_as_what_it_is",
            ),
            "unit/test_plan.py": (
                "test_more_than_a_fifth_is_blocked_until_it_is_approved",
                "test_all_objects_never_go_without_approval",
                "test_an_approval_is_for_exactly_these_deletions",
            ),
            "contract/test_source_mirror.py": (
                "test_when_all_specs_are_gone_the_whole_says_so",
                "test_a_path_that_is_not_there_or_has_no_specs_is_a_problem",
            ),
            "e2e/test_daemon.py": ("test_a_limit_holds_deletions_until_a_person_approves",),
        },
    ),
    "T42": Threat(
        "an object that somebody else made anew under the same name",
        {
            "contract/test_apply.py": (
                "test_an_object_of_the_same_name_that_somebody_else_made_is_spared",
                "test_an_object_whose_label_was_taken_away_is_spared",
            ),
            "contract/test_cluster_edge.py": ("test_an_object_made_anew_under_the_same_name_is_not_deleted",),
        },
    ),
    "T43": Threat(
        "one object under two API groups or versions",
        {"unit/test_plan.py": ("test_one_object_under_two_api_versions_is_one_object",)},
    ),
    "T44": Threat(
        "a namespace that goes while its members are wanted, or is wanted no more",
        {
            "unit/test_plan.py": ("test_some_members_stay_and_the_plan_says_why",),
            "unit/test_prune_guards.py": (
                "test_an_environment_that_moves_to_another_namespace_leaves_the_old_one_until_somebody_agrees",
            ),
            "contract/test_apply.py": (
                "test_a_namespace_that_is_going_fails_its_objects_with_a_sentence_that_says_so",
                "test_an_environment_that_is_gone_from_the_specs_leaves_its_namespace_and_nothing_else",
            ),
        },
    ),
    "T45": Threat(
        "a finalizer that nobody takes away",
        {"contract/test_apply.py": ("test_a_finalizer_that_stays_is_told_and_neither_waited_for_nor_forgotten",)},
    ),
    "T46": Threat(
        "an inventory that is lost, edited, or copied from another environment",
        {
            "unit/test_plan.py": ("test_a_lost_inventory_deletes_nothing_on_the_run_that_rebuilds_it",),
            "unit/test_inventory.py": ("test_a_config_map_that_is_not_ours_or_was_edited_is_refused",),
            "contract/test_apply.py": (
                "test_a_lost_inventory_is_rebuilt_first_and_pruned_by_the_next_run",
                "test_a_corrupt_inventory_is_rebuilt_as_a_lost_one",
                "test_a_copy_of_an_inventory_is_not_taken_for_it",
            ),
        },
    ),
    "T50": Threat(
        "secrets in anything that is shown, stored or logged",
        {
            "e2e/test_secrets.py": (
                "test_a_git_token_is_seen_by_nobody_but_git",
                "test_what_the_server_says_of_a_secret_is_not_repeated",
                "test_the_pods_that_a_server_refuses_are_not_repeated_with_all_that_is_in_them",
                "test_a_server_that_repeats_our_token_does_not_get_it_into_a_report",
                "test_a_kubeconfig_that_is_wrong_is_not_quoted",
                "test_credentials_that_were_written_into_a_spec_are_refused_and_not_shown",
            ),
            "unit/test_specs_problems.py": ("test_what_was_written_in_place_of_a_secrets_name_is_never_shown",),
            "unit/test_cluster_errors.py": ("test_words_that_may_quote_a_secret_are_withheld",),
            "unit/test_logs.py": (
                "test_what_looks_like_a_credential_is_masked",
                "test_a_credential_is_masked_wherever_it_stands",
            ),
            "contract/test_notify.py": ("test_a_secret_that_is_no_address_is_named_and_not_quoted",),
            "contract/test_chart.py": ("test_no_object_has_the_value_of_a_secret",),
        },
        lacking="no planted secret is looked for in the daemon's Events, status and page as they are in a run's output",
    ),
    "T51": Threat(
        "a difference that shows a live Secret, or the length of one",
        {
            "unit/test_diff.py": (
                "test_values_of_a_secret_never_leave_and_neither_does_their_length",
                "test_a_value_beside_a_name_that_speaks_of_a_credential_is_hidden",
                "test_a_credential_inside_a_whole_new_object_is_hidden_too",
            ),
        },
    ),
    "T60": Threat(
        "an impersonation of nobody, which clients leave out: requests would be made with more rights than asked for",
        {
            "unit/test_cluster_access.py": (
                "test_impersonation_even_of_nobody_is_refused_as_the_client_would_ignore_it",
            ),
            "contract/test_chart_roles.py": ("test_no_rule_has_a_star_and_none_is_about_rights_themselves",),
        },
    ),
    "T61": Threat(
        "a spec that names another environment's namespace, or one of the cluster's",
        {
            "unit/test_tenancy.py": (
                "test_two_environments_of_a_cluster_never_share_a_namespace_and_neither_is_preferred",
                "test_a_namespace_has_one_spelling",
                "test_namespaces_of_the_cluster_and_of_the_reconciler_are_nobodys",
                "test_no_other_spec_and_no_override_names_a_namespace",
                "test_whatever_an_environment_refers_to_its_objects_are_in_its_own_namespace",
            ),
            "contract/test_apply.py": (
                "test_the_namespace_of_another_environment_is_not_joined",
                "test_two_environments_that_turn_out_to_share_a_namespace_do_not_fight_over_it",
            ),
            "contract/test_chart_roles.py": ("test_it_may_do_nothing_in_any_other_namespace",),
        },
    ),
    "T62": Threat(
        "a kubeconfig that runs programs, sends files, trusts anybody or fills the memory",
        {
            "unit/test_cluster_access.py": (
                "test_a_kubeconfig_that_is_data_can_neither_run_read_nor_weaken_anything",
                "test_the_plugin_of_a_kubeconfig_that_is_data_is_never_started",
                "test_a_kubeconfig_that_is_data_costs_little_however_it_is_written",
                "test_a_kubeconfig_of_any_shape_is_either_used_or_refused",
            ),
            "e2e/test_secrets.py": ("test_the_kubeconfig_of_another_cluster_is_read_from_its_secret_and_not_quoted",),
            "fuzz/test_fuzz.py": ("test_a_target_takes_whatever_strangers_write",),
        },
    ),
    "T63": Threat(
        "an approval by nobody, in another's name, or of another build",
        {
            "e2e/test_promotion_faults.py": (
                "test_nothing_but_an_approval_of_this_very_build_lets_it_into_production",
            ),
            "contract/test_admission_policy.py": (
                "test_who_may_not_patch_promotions_cannot_approve",
                "test_nobody_decides_in_the_name_of_another",
                "test_a_promotion_is_not_born_with_the_approval_of_another",
                "test_nobody_approves_a_plan_in_the_name_of_another",
            ),
            "contract/test_ledger.py": ("test_who_asks_is_who_the_cluster_says_it_is",),
            "contract/test_record_crds.py": ("test_what_was_decided_never_changes",),
        },
    ),
    "T70": Threat(
        "webhooks: malformed, huge, unproven, repeated, too many",
        {
            "unit/test_webhooks.py": (
                "test_a_request_without_a_proof_is_refused",
                "test_a_proof_by_another_secret_is_refused",
                "test_what_was_taken_within_the_last_hour_is_ignored",
                "test_a_genuine_request_with_a_malformed_body_is_refused",
                "test_another_event_is_ignored_without_a_look_at_its_body",
            ),
            "contract/test_web.py": (
                "test_a_larger_one_is_refused_before_it_is_sent",
                "test_more_requests_than_the_rate_are_told_to_come_later",
                "test_a_client_that_takes_its_time_is_cut_off",
            ),
            "fuzz/test_fuzz.py": ("test_a_target_takes_whatever_strangers_write",),
        },
    ),
    "T80": Threat(
        "markup, links, mentions and commands to a terminal in names and messages",
        {
            "unit/test_page.py": (
                "test_nothing_that_somebody_wrote_becomes_markup",
                "test_an_address_that_is_not_plainly_https_is_no_link",
                "test_control_characters_are_shown_and_have_no_effect",
            ),
            "unit/test_notifications.py": ("test_slack_obeys_nothing_that_somebody_wrote",),
            "unit/test_report.py": ("test_a_terminal_never_obeys_a_name",),
            "unit/test_standing.py": ("test_no_text_of_anybody_commands_the_terminal",),
            "unit/test_specs_problems.py": ("test_a_key_that_a_terminal_would_obey_is_quoted",),
        },
        lacking="there is no output in Markdown yet, which a comment of a pull request would be",
    ),
}


@cache
def functions(file: str) -> frozenset[str]:
    """The tests of a file; those of its classes, too."""
    tree = ast.parse((TESTS / file).read_text())
    return frozenset(
        node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    )


def test_every_number_of_the_list_is_kept() -> None:
    assert tuple(LIST) == NUMBERS


@pytest.mark.parametrize("number", LIST)
def test_a_threat_has_tests_that_exist(number: str) -> None:
    assert LIST[number].tests
    for file, names in LIST[number].tests.items():
        assert (TESTS / file).is_file(), file
        assert names
        assert not set(names) - functions(file), file
