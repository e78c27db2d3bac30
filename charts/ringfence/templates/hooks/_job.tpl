{{/* A Job that runs one command of the image with the token of ServiceAccount `name`.
     root, name, hook, weight, args; retries, 3 unless told */}}
{{- define "ringfence.hookJob" -}}
{{- $scope := dict "root" .root "component" "hook" -}}
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .name }}
  namespace: {{ .root.Release.Namespace }}
  labels:
    {{- include "ringfence.labels" $scope | nindent 4 }}
  annotations:
    helm.sh/hook: {{ .hook }}
    helm.sh/hook-weight: {{ .weight | quote }}
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
    helm.sh/hook-output-log-policy: hook-failed
spec:
  backoffLimit: {{ ternary .retries 3 (hasKey . "retries") }}
  activeDeadlineSeconds: 300
  ttlSecondsAfterFinished: 3600
  template:
    metadata:
      labels:
        {{- include "ringfence.labels" $scope | nindent 8 }}
    spec:
      restartPolicy: Never
      serviceAccountName: {{ .name }}
      {{- include "ringfence.pullSecrets" .root | nindent 6 }}
      securityContext:
        {{- include "ringfence.podSecurity" .root | nindent 8 }}
      {{- include "ringfence.placement" .root.Values.controller | nindent 6 }}
      containers:
        - name: hook
          image: {{ include "ringfence.image" (dict "root" .root "image" .root.Values.image) }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          args: {{ toJson .args }}
          resources:
            requests: {cpu: 50m, memory: 64Mi}
            limits: {memory: 128Mi}
          terminationMessagePolicy: FallbackToLogsOnError
          securityContext:
            {{- include "ringfence.containerSecurity" .root | nindent 12 }}
{{- end }}

{{/* Metadata of what a hook's Job needs. root, name, hook, weight, cluster */}}
{{- define "ringfence.hookMeta" -}}
metadata:
  name: {{ .name }}
  {{- if not .cluster }}
  namespace: {{ .root.Release.Namespace }}
  {{- end }}
  labels:
    {{- include "ringfence.labels" (dict "root" .root "component" "hook") | nindent 4 }}
  annotations:
    helm.sh/hook: {{ .hook }}
    helm.sh/hook-weight: {{ .weight | quote }}
    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}

{{/* Binding of a hook's role of the same name. root, name, hook, weight, cluster */}}
{{- define "ringfence.hookBinding" -}}
{{- $prefix := ternary "Cluster" "" (default false .cluster) -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: {{ $prefix }}RoleBinding
{{ include "ringfence.hookMeta" . }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ $prefix }}Role
  name: {{ .name }}
subjects:
  - kind: ServiceAccount
    name: {{ .name }}
    namespace: {{ .root.Release.Namespace }}
{{- end }}
