{{/* All objects carry the release's name, or release-chart where the release is named otherwise. */}}
{{- define "lfm.name" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "lfm.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "lfm.labels" -}}
{{ include "lfm.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The routes that callers and the page use. Probes and metrics are not among them. */}}
{{- define "lfm.paths" -}}
- {path: /, exact: true}
- {path: /v1, exact: false}
- {path: /v2, exact: false}
- {path: /assets, exact: false}
- {path: /docs, exact: true}
- {path: /openapi.json, exact: true}
{{- end -}}
