{{/* What `platform` means; docs/platforms.md has the sources. A value of enforcer.cni wins. */}}

{{- define "ringfence.cniConfDir" -}}
{{- $dirs := dict
  "k3s" "/var/lib/rancher/k3s/agent/etc/cni/net.d"
  "openshift" "/etc/kubernetes/cni/net.d"
  "microk8s" "/var/snap/microk8s/current/args/cni-network" -}}
{{ .Values.enforcer.cni.confDir | default (get $dirs .Values.platform) | default "/etc/cni/net.d" }}
{{- end }}

{{- define "ringfence.cniBinDir" -}}
{{- $dirs := dict
  "k3s" "/var/lib/rancher/k3s/data/cni"
  "gke" "/home/kubernetes/bin"
  "openshift" "/var/lib/cni/bin"
  "microk8s" "/var/snap/microk8s/current/opt/cni/bin" -}}
{{ .Values.enforcer.cni.binDir | default (get $dirs .Values.platform) | default "/opt/cni/bin" }}
{{- end }}

{{/* SELinux keeps containers from directories of the node unless they say this. */}}
{{- define "ringfence.seLinuxOptions" -}}
{{- $given := .Values.enforcer.seLinuxOptions -}}
{{- if $given }}{{ toYaml $given }}{{ else if eq .Values.platform "openshift" }}type: spc_t{{ end }}
{{- end }}
