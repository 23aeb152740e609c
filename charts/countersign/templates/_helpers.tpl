{{/* Everything is named like this, as `countersign manifests` does: there is one installation in a cluster. */}}
{{- define "countersign.labels" -}}
app.kubernetes.io/name: countersign
{{- end }}

{{- define "countersign.metadata" -}}
name: countersign
labels:
  {{- include "countersign.labels" . | nindent 2 }}
namespace: {{ .Release.Namespace }}
{{- end }}

{{/* Whether this is Kubernetes 1.MINOR or later: (list . MINOR). By the release and not by the APIs, of which `helm template` knows
     only today's. */}}
{{- define "countersign.since" -}}
{{- $root := index . 0 -}}
{{- if and (eq $root.Values.platform "kubernetes") (semverCompare (printf ">=1.%d-0" (index . 1)) $root.Capabilities.KubeVersion.Version) }}true{{ end -}}
{{- end }}

{{/* The namespaces that are not reviewed, each once. */}}
{{- define "countersign.exempt" -}}
{{- $system := ternary (list "kube-system") list (and (eq .Values.platform "kubernetes") (not .Values.reviewKubeSystem)) -}}
{{- concat (list .Release.Namespace) $system .Values.exemptNamespaces | uniq | toJson -}}
{{- end }}

{{/* Who may connect: ranges of addresses, which have a slash, and namespaces. */}}
{{- define "countersign.peers" -}}
{{- if . -}}
from:
{{- range . }}
{{- if contains "/" . }}
- ipBlock: {cidr: {{ . | quote }}}
{{- else }}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ . | quote }}}}
{{- end }}
{{- end }}
{{- end -}}
{{- end }}

{{/* Refuses what would install something else than was meant. */}}
{{- define "countersign.refuse" -}}
{{- if and (eq .Values.platform "kubernetes") (not (include "countersign.since" (list . 16))) -}}
{{- fail (printf "Kubernetes %s does not serve what platform=kubernetes installs, which needs 1.16; install with --set platform=openshift-3.11" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if has .Release.Namespace (list "kube-node-lease" "kube-public" "kube-system") -}}
{{- fail (printf "namespace %s: Countersign needs a namespace of its own, in which nothing else runs, as that is not reviewed" .Release.Namespace) -}}
{{- end -}}
{{- if and .Values.reviewKubeSystem (has "kube-system" .Values.exemptNamespaces) -}}
{{- fail "reviewKubeSystem and kube-system in exemptNamespaces say the opposite of each other; give one of them" -}}
{{- end -}}
{{- end }}

{{/* Repositories of the default policy: from defaultPolicy, or from IBM Cloud Private's block in either indentation. */}}
{{- define "countersign.defaultPolicy" -}}
{{- $block := index .Values "image-security-enforcement" | default dict -}}
{{- $repositories := concat (.Values.defaultPolicy | default list) ($block.clusterImagePolicy | default list) (.Values.clusterImagePolicy | default list) -}}
{{- $repositories | default list | toYaml -}}
{{- end }}
