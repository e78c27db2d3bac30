{{/* There is one install in a cluster: names are fixed, as controller, webhook and agents expect. */}}

{{- define "ringfence.labels" -}}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name (.root.Chart.Version | replace "+" "_"))
  "app.kubernetes.io/name" "ringfence"
  "app.kubernetes.io/instance" .root.Release.Name
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/part-of" "ringfence"
  "app.kubernetes.io/managed-by" .root.Release.Service -}}
{{- if .component }}{{ $_ := set $own "app.kubernetes.io/component" .component }}{{ end -}}
{{- toYaml (merge $own .root.Values.commonLabels) -}}
{{- end }}

{{- define "ringfence.selector" -}}
app.kubernetes.io/name: ringfence
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "ringfence.image" -}}
{{- $ref := printf "%s:%s" .image.repository (.image.tag | default .root.Chart.AppVersion) -}}
{{- if .image.digest }}{{ $ref = printf "%s@%s" .image.repository .image.digest }}{{ end -}}
{{- with .root.Values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ $ref }}
{{- end }}

{{- define "ringfence.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Pod Security Standard "restricted". OpenShift gives each namespace users of its own. */}}
{{- define "ringfence.podSecurity" -}}
runAsNonRoot: true
{{- if ne .Values.platform "openshift" }}
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "ringfence.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "ringfence.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Replicas on different nodes and in different zones, where there are some. */}}
{{- define "ringfence.spread" -}}
topologySpreadConstraints:
  {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ $key }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "ringfence.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}

{{- define "ringfence.tenantFileName" -}}
{{ .Values.existingTenantFile | default "ringfence-tenants" }}
{{- end }}

{{/* Mounted as a directory: a file mounted by subPath would never be seen to change. */}}
{{- define "ringfence.tenantVolume" -}}
- name: tenants
  configMap:
    name: {{ include "ringfence.tenantFileName" . }}
    items:
      - key: tenants.yaml
        path: tenants.yaml
{{- end }}

{{- define "ringfence.certificateSecret" -}}
{{- if eq .Values.certificates.source "secret" }}{{ .Values.certificates.existingSecret }}
{{- else if eq .Values.certificates.source "cert-manager" }}ringfence-webhook-issued
{{- else }}ringfence-webhook-certificates{{ end }}
{{- end }}

{{- define "ringfence.usesPolicies" -}}
{{- if or .Values.policies.cluster .Values.policies.files }}true{{ end }}
{{- end }}

{{- define "ringfence.policyArguments" -}}
{{- if .Values.policies.files }}
- --policies=/etc/ringfence/policies
{{- end }}
{{- if .Values.policies.cluster }}
- --policies=cluster
{{- end }}
{{- end }}

{{- define "ringfence.allowedKinds" -}}
{{- range .Values.policies.allowKinds }}
- --allow-kind={{ .kind }}
{{- end }}
{{- end }}

{{- define "ringfence.policyMount" -}}
{{- if .Values.policies.files }}
- name: policies
  mountPath: /etc/ringfence/policies
  readOnly: true
{{- end }}
{{- end }}

{{- define "ringfence.policyVolume" -}}
{{- if .Values.policies.files }}
- name: policies
  configMap:
    name: ringfence-policy-files
{{- end }}
{{- end }}

{{/* An address as the network of one; a network as it is. */}}
{{- define "ringfence.cidr" -}}
{{- if contains "/" . }}{{ . }}{{ else if contains ":" . }}{{ . }}/128{{ else }}{{ . }}/32{{ end }}
{{- end -}}
