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

{{/* Repositories of the default policy: from defaultPolicy, or from IBM Cloud Private's block in either indentation. */}}
{{- define "countersign.defaultPolicy" -}}
{{- $block := index .Values "image-security-enforcement" | default dict -}}
{{- $repositories := concat (.Values.defaultPolicy | default list) ($block.clusterImagePolicy | default list) (.Values.clusterImagePolicy | default list) -}}
{{- $repositories | default list | toYaml -}}
{{- end }}
