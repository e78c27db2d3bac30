{{/* Names, labels and the two values that may also come from `global`. */}}

{{/* Release and chart or alias: two releases, or two aliases of one, never share a name. A long one
     ends in a hash instead of being cut. Room for the longest suffix, "-unlabel". */}}
{{- define "ringfence-namespace.fullname" -}}
{{- $name := printf "%s-%s" .Release.Name .Chart.Name -}}
{{- if gt (len $name) 52 -}}
{{- printf "%s-%s" ($name | trunc 43 | trimSuffix "-") (sha256sum $name | trunc 8) -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end }}

{{/* On whose behalf the API server books the namespace's labels; also the hook's word for who it is. */}}
{{- define "ringfence-namespace.fieldManager" -}}
{{- if eq .Chart.Name "ringfence-namespace" -}}
ringfence-{{ .Release.Name }}
{{- else -}}
ringfence-{{ .Release.Name }}/{{ .Chart.Name }}
{{- end -}}
{{- end }}

{{- define "ringfence-namespace.selectorLabels" -}}
app.kubernetes.io/name: ringfence-namespace
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "ringfence-namespace.labels" -}}
{{ include "ringfence-namespace.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "ringfence-namespace.image" -}}
{{- $image := .Values.image -}}
{{- $registry := $image.registry | default .Values.global.imageRegistry -}}
{{- with $registry }}{{ . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default .Chart.AppVersion }}{{ end -}}
{{- end }}

{{/* The namespace's labels as JSON, for fromJson. */}}
{{- define "ringfence-namespace.wanted" -}}
{{- merge (dict) .Values.labels .Values.global.ringfence.labels | toJson -}}
{{- end }}

{{/* Who may enter, as JSON, for fromJsonArray. */}}
{{- define "ringfence-namespace.allowFrom" -}}
{{- concat .Values.global.ringfence.allowFrom .Values.allowFrom | toJson -}}
{{- end }}
