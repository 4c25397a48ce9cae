{{/* The name of everything. 50 characters: a suffix still fits into the 63 of a label. */}}
{{- define "trueup.name" -}}
{{- $made := ternary .Release.Name (printf "%s-trueup" .Release.Name) (contains "trueup" .Release.Name) -}}
{{- .Values.fullnameOverride | default $made | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "trueup.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "trueup.name" .) -}}
{{- end -}}

{{/* Records, inventories and the reconciler itself: the code knows this name. */}}
{{- define "trueup.namespace" -}}
trueup-system
{{- end -}}

{{- define "trueup.user" -}}
system:serviceaccount:{{ include "trueup.namespace" . }}:{{ include "trueup.serviceAccount" . }}
{{- end -}}

{{- define "trueup.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "trueup.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: trueup
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: trueup
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{/* What never changes while a release lives: a Deployment's selector cannot. */}}
{{- define "trueup.selector" -}}
app.kubernetes.io/name: trueup
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: reconciler
{{- end -}}

{{- define "trueup.subject" -}}
- kind: ServiceAccount
  name: {{ include "trueup.serviceAccount" . }}
  namespace: {{ include "trueup.namespace" . }}
{{- end -}}

{{/* A list of the inventories' names, as JSON. */}}
{{- define "trueup.inventories" -}}
{{- $names := list -}}
{{- range .Values.environments -}}
{{- $names = append $names (printf "trueup-%s" .name) -}}
{{- end -}}
{{- toJson $names -}}
{{- end -}}

{{/* What every container of ours is allowed: the restricted profile, and a read-only root. */}}
{{- define "trueup.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "trueup.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}
