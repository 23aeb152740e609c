{{/* Everything is named countersign, as `countersign manifests` does it: there is one installation in a cluster. What
     `crates/countersign/src/install` prints for the same values is the same, and a test compares both. */}}

{{/* The labels by which the pods are found. A Deployment keeps those that it was made with. */}}
{{- define "countersign.selector" -}}
app.kubernetes.io/name: countersign
{{- end }}

{{/* The labels by which people find everything. Of pods they are all: the chart's own would replace every pod whenever it changes. */}}
{{- define "countersign.podLabels" -}}
{{ include "countersign.selector" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{/* The labels of everything else, with those of commonLabels and of a further dict, which wins: (list . DICT). */}}
{{- define "countersign.labelsWith" -}}
{{- $root := index . 0 -}}
{{ include "countersign.podLabels" $root }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- with merge (dict) (index . 1 | default dict) ($root.Values.commonLabels | default dict) }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "countersign.labels" -}}
{{- include "countersign.labelsWith" (list . dict) }}
{{- end }}

{{/* The metadata of an object of the installation's namespace: (list . NAME). The labels come last, so that more can follow. */}}
{{- define "countersign.named" -}}
name: {{ index . 1 }}
namespace: {{ (index . 0).Release.Namespace }}
labels:
  {{- include "countersign.labels" (index . 0) | nindent 2 }}
{{- end }}

{{- define "countersign.metadata" -}}
{{- include "countersign.named" (list . "countersign") }}
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
{{- if and (eq .Values.platform "openshift-3.11") (ne (int .Values.timeoutSeconds) 10) -}}
{{- fail "timeoutSeconds: the webhooks of OpenShift 3.11 have none; its API server waits 30 s" -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- if hasPrefix "COUNTERSIGN_" .name -}}
{{- fail (printf "extraEnv: %s would win over the settings; say it in config" .name) -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraVolumes -}}
{{- if has .name (list "config" "trust-ca" "client-ca" "tls") -}}
{{- fail (printf "extraVolumes: the pods have a volume %s already; give it another name" .name) -}}
{{- end -}}
{{- end -}}
{{- if hasKey (.Values.podAnnotations | default dict) "checksum/config" -}}
{{- fail "podAnnotations: checksum/config is set by the installation itself" -}}
{{- end -}}
{{- if and .Values.topologySpreadConstraints (not (include "countersign.since" (list . 18))) -}}
{{- fail "topologySpreadConstraints: Kubernetes has them from 1.18 on" -}}
{{- end -}}
{{- end }}

{{/* Repositories of the default policy: from defaultPolicy, or from IBM Cloud Private's block in either indentation. */}}
{{- define "countersign.defaultPolicy" -}}
{{- $block := index .Values "image-security-enforcement" | default dict -}}
{{- $repositories := concat (.Values.defaultPolicy | default list) ($block.clusterImagePolicy | default list) (.Values.clusterImagePolicy | default list) -}}
{{- $repositories | default list | toYaml -}}
{{- end }}

{{/* A span of time such as 500ms, 30s or 1h30m, in milliseconds. */}}
{{- define "countersign.milliseconds" -}}
{{- $sum := 0 -}}
{{- range regexFindAll "[0-9]+(ms|s|m|h|d)" (. | toString) -1 -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- $sum = add $sum (mul (regexFind "^[0-9]+" . | int64) (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000 "d" 86400000) $unit)) -}}
{{- end -}}
{{- $sum -}}
{{- end }}

{{/* All settings of the server: those of `config`, and those by which the parts of the installation fit each other. What contradicts
     these is refused, as neither may silently win. */}}
{{- define "countersign.settings" -}}
{{- $given := .Values.config | default dict -}}
{{- range list "kubeconfig" "policies" "secrets-namespace" "self-signed" -}}
{{- if hasKey $given . -}}
{{- fail (printf "config.%s makes no sense for a server that runs in its cluster; leave it out" .) -}}
{{- end -}}
{{- end -}}
{{- $settings := dict "mode" .Values.mode "namespace" .Release.Namespace "webhook-configuration" "countersign" -}}
{{- if eq .Values.tls.source "self-managed" -}}
{{- $_ := set $settings "tls-secret" "countersign-tls" -}}
{{- $_ := set $settings "service" "countersign" -}}
{{- else -}}
{{- $_ := set $settings "tls-cert" "/tls/tls.crt" -}}
{{- $_ := set $settings "tls-key" "/tls/tls.key" -}}
{{- end -}}
{{- if and (hasKey $given "mode") (ne (get $given "mode") .Values.mode) -}}
{{- fail (printf "config.mode is %s, and mode is %s; give mode alone" (get $given "mode") .Values.mode) -}}
{{- end -}}
{{- range list "namespace" "service" "tls-cert" "tls-key" "tls-secret" "webhook-configuration" -}}
{{- if and (hasKey $given .) (ne (get $given . | toString) (get $settings . | toString)) -}}
{{- fail (printf "config.%s is not what the installation needs; leave it out" .) -}}
{{- end -}}
{{- end -}}
{{- range $name, $port := dict "listen" "8443" "ops-listen" "8081" -}}
{{- $address := get $given $name | default (printf "0.0.0.0:%s" $port) -}}
{{- if not (hasSuffix (printf ":%s" $port) $address) -}}
{{- fail (printf "config.%s is %s; its port must be %s" $name $address $port) -}}
{{- end -}}
{{- $_ := set $settings $name $address -}}
{{- end -}}
{{- $timeout := ternary .Values.timeoutSeconds 30 (eq .Values.platform "kubernetes") | int -}}
{{- if hasKey $given "deadline" -}}
{{- $deadline := get $given "deadline" -}}
{{- if ge (include "countersign.milliseconds" $deadline | int64) (mul $timeout 1000) -}}
{{- fail (printf "config.deadline is %s, and must be less than the %d s that the API server waits" ($deadline | toString) $timeout) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $settings "deadline" (get $given "deadline" | default (printf "%ds" (sub (int .Values.timeoutSeconds) 2))) -}}
{{- $delay := ternary (get $given "shutdown-delay") "5s" (hasKey $given "shutdown-delay") -}}
{{- if gt (include "countersign.milliseconds" $delay | int64) 300000 -}}
{{- fail "config: --shutdown-delay must be at most 300s" -}}
{{- end -}}
{{- $_ := set $settings "shutdown-delay" $delay -}}
{{- $_ := set $settings "trust-ca" (concat (list "/etc/countersign-trust-ca") (get $given "trust-ca" | default list)) -}}
{{- range $name, $value := $given -}}
{{- if not (hasKey $settings $name) -}}
{{- $_ := set $settings $name $value -}}
{{- end -}}
{{- end -}}
{{- $settings | toYaml -}}
{{- end }}

{{/* What a stop may take: the time in which others learn of it, in whole seconds, then the longest review, and some room. */}}
{{- define "countersign.stop" -}}
{{- $delay := get (include "countersign.settings" . | fromYaml) "shutdown-delay" -}}
{{- add (div (add (include "countersign.milliseconds" $delay | int64) 999) 1000) 40 -}}
{{- end }}

{{/* A tag beside a digest is for people, and only there where somebody gave one: CRI-O before 1.16 refuses both together. */}}
{{- define "countersign.image" -}}
{{- $image := .Values.image -}}
{{- $tag := $image.tag | default (ternary "" .Chart.AppVersion (not (empty $image.digest))) -}}
{{- $image.repository -}}{{- with $tag }}:{{ . }}{{ end -}}{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end }}

{{/* What the pod standards of Kubernetes and OpenShift demand. */}}
{{- define "countersign.podSecurity" -}}
{{- $security := dict -}}
{{- if eq .Values.platform "kubernetes" -}}
{{- $_ := set $security "runAsNonRoot" true -}}
{{- end -}}
{{- with .Values.runAsUser -}}
{{- $_ := set $security "runAsUser" (int64 .) -}}
{{- $_ := set $security "runAsGroup" (int64 .) -}}
{{- end -}}
{{- if include "countersign.since" (list . 19) -}}
{{- $_ := set $security "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- end -}}
{{- with $security -}}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end }}

{{- define "countersign.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  runAsNonRoot: true
  capabilities: {drop: [ALL]}
{{- end }}

{{/* The image, and when it is pulled. */}}
{{- define "countersign.containerImage" -}}
image: {{ include "countersign.image" . | quote }}
{{- with .Values.image.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
{{- end }}
