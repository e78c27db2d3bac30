{{/*
The hook kit: what each phase needs, in the order of the weights. Called with a dict:
  root    the chart's context
  phase   label | unlabel | test; part of the names, so that no object serves two phases
  events  Helm's hooks

A phase leaves nothing: ServiceAccount, Role and NetworkPolicy live as long as its Job. A right to
patch the namespace that stayed could be used by whoever may create pods in it.
*/}}

{{- define "ringfence-namespace.hook.metadata" -}}
name: {{ include "ringfence-namespace.fullname" .root }}-{{ .phase }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "ringfence-namespace.labels" .root | nindent 2 }}
  app.kubernetes.io/component: {{ .phase }}
annotations:
  helm.sh/hook: {{ .events }}
  helm.sh/hook-weight: {{ .weight | quote }}
  helm.sh/hook-delete-policy: {{ .root.Values.hook.deletePolicy }}
{{- end }}

{{- define "ringfence-namespace.hook.serviceAccountName" -}}
{{- $own := printf "%s-%s" (include "ringfence-namespace.fullname" .root) .phase -}}
{{- .root.Values.hook.serviceAccountName | default $own -}}
{{- end }}

{{- define "ringfence-namespace.hook.access" -}}
{{- if not .root.Values.hook.serviceAccountName -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "ringfence-namespace.hook.metadata" (merge (dict "weight" "-30") .) | nindent 2 }}
# The pod mounts the token; nobody else who names this account gets one by default.
automountServiceAccountToken: false
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata:
  {{- include "ringfence-namespace.hook.metadata" (merge (dict "weight" "-30") .) | nindent 2 }}
rules:
  # A request for a namespace counts as one within it, so a Role suffices: no other namespace is in reach.
  - apiGroups: [""]
    resources: [namespaces]
    resourceNames: [{{ .root.Release.Namespace }}]
    {{- if eq .phase "test" }}
    # To look at its labels.
    verbs: [get]
    {{- else }}
    # To see whose labels are there, and to apply our own.
    verbs: [get, patch]
    {{- end }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "ringfence-namespace.hook.metadata" (merge (dict "weight" "-20") .) | nindent 2 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ include "ringfence-namespace.hook.serviceAccountName" . }}
subjects:
  - kind: ServiceAccount
    name: {{ include "ringfence-namespace.hook.serviceAccountName" . }}
    namespace: {{ .root.Release.Namespace }}
---
{{- end }}
{{- if .root.Values.hook.networkPolicy.create }}
# Policies add up: where another one denies egress, the pod below still reaches the API server.
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  {{- include "ringfence-namespace.hook.metadata" (merge (dict "weight" "-30") .) | nindent 2 }}
spec:
  podSelector:
    matchLabels:
      {{- include "ringfence-namespace.selectorLabels" .root | nindent 6 }}
      app.kubernetes.io/component: {{ .phase }}
  policyTypes: [Egress]
  egress:
    - ports:
        {{- range .root.Values.hook.networkPolicy.ports }}
        - {port: {{ . }}, protocol: TCP}
        {{- end }}
---
{{- end }}
{{- end }}

{{/* Further keys: weight, command (list of words after `ringfence`). */}}
{{- define "ringfence-namespace.hook.pod" -}}
{{- $hook := .root.Values.hook -}}
{{- $secrets := concat .root.Values.global.imagePullSecrets .root.Values.image.pullSecrets -}}
serviceAccountName: {{ include "ringfence-namespace.hook.serviceAccountName" . }}
automountServiceAccountToken: true
enableServiceLinks: false
restartPolicy: Never
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- with $secrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with $hook.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $hook.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $hook.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $hook.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: ringfence
    image: {{ include "ringfence-namespace.image" .root }}
    imagePullPolicy: {{ .root.Values.image.pullPolicy }}
    command: [ringfence]
    args:
      {{- toYaml .command | nindent 6 }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities: {drop: [ALL]}
    resources:
      {{- toYaml $hook.resources | nindent 6 }}
{{- end }}

{{- define "ringfence-namespace.hook.job" -}}
{{- $hook := .root.Values.hook -}}
apiVersion: batch/v1
kind: Job
metadata:
  {{- include "ringfence-namespace.hook.metadata" (merge (dict "weight" "-10") .) | nindent 2 }}
    # Helm prints what the hook has said when it failed; 3.18 is the first that does.
    helm.sh/hook-output-log-policy: hook-failed
spec:
  backoffLimit: {{ $hook.backoffLimit }}
  activeDeadlineSeconds: {{ $hook.activeDeadlineSeconds }}
  ttlSecondsAfterFinished: {{ $hook.ttlSecondsAfterFinished }}
  podFailurePolicy:
    rules:
      # 1: refused; 2: a wrong value. Neither gets better by trying again.
      - action: FailJob
        onExitCodes: {containerName: ringfence, operator: In, values: [1, 2]}
      # A node that was drained says nothing about the label.
      - action: Ignore
        onPodConditions: [{type: DisruptionTarget}]
  template:
    metadata:
      labels:
        {{- include "ringfence-namespace.labels" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .phase }}
        {{- with $hook.podLabels }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with $hook.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      {{- include "ringfence-namespace.hook.pod" . | nindent 6 }}
{{- end }}

{{/* `namespace label` as this release says it; `labels` and further words follow. */}}
{{- define "ringfence-namespace.hook.command" -}}
{{- $words := list "namespace" "label" .root.Release.Namespace -}}
{{- range $key, $value := .labels -}}
{{- $words = append $words (printf "%s=%s" $key $value) -}}
{{- end -}}
{{- $words = concat $words (list "--field-manager" (include "ringfence-namespace.fieldManager" .root)) -}}
{{- $words = concat $words (list "--timeout" (toString .root.Values.hook.timeoutSeconds)) -}}
{{- concat $words .further | toJson -}}
{{- end }}
