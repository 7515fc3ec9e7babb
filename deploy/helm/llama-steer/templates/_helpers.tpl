{{- define "llama-steer.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "llama-steer.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "llama-steer.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "llama-steer.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- define "llama-steer.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "llama-steer.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "llama-steer.image" -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}

{{- define "llama-steer.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "llama-steer.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: {{ .Values.security.readOnlyRootFilesystem }}
capabilities: { drop: [ALL] }
{{- end -}}

{{/* Values that contradict one another, told before anything is installed. */}}
{{- define "llama-steer.check" -}}
{{- $sources := compact (list .Values.model.pvc .Values.model.image .Values.model.hostPath) -}}
{{- if ne (len $sources) 1 -}}
{{- fail "model: set exactly one of model.pvc, model.image, model.hostPath" -}}
{{- end -}}
{{- $postgres := .Values.registry.postgres.existingSecret -}}
{{- $scales := or (gt (int .Values.replicaCount) 1) (ne .Values.autoscaling.kind "none") -}}
{{- if and $scales (not $postgres) -}}
{{- fail "registry: more than one replica needs registry.postgres.existingSecret" -}}
{{- end -}}
{{- $tls := .Values.security.tls.existingSecret -}}
{{- $authenticates := or .Values.security.tokens.existingSecret .Values.security.tls.clientCa -}}
{{- if and (not .Values.security.insecureListen) (not (and $tls $authenticates)) -}}
{{- fail "security: set security.tls.existingSecret and either security.tokens.existingSecret or security.tls.clientCa, or say security.insecureListen: true" -}}
{{- end -}}
{{- if and .Values.security.tls.clientCa (not $tls) -}}
{{- fail "security.tls.clientCa needs security.tls.existingSecret" -}}
{{- end -}}
{{- end -}}
