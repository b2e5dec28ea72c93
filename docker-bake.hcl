# SPDX-License-Identifier: Apache-2.0
# Every image, as `make images` builds them: docs/images.md. The values come from tools/containers/images.
variable "PREFIX" { default = "" }                       # "<registry>/" or nothing
variable "VERSION" { default = "dev" }
variable "REVISION" { default = "unknown" }              # the commit
variable "CREATED" { default = "1980-01-01T00:00:00Z" }  # the commit's time, twice
variable "SOURCE_DATE_EPOCH" { default = "315532800" }
variable "SOURCE" { default = "unknown" }
variable "CA_BUNDLE" { default = "/dev/null" }           # of a network that signs traffic anew
variable "PIP_INDEX_URL" { default = "" }
variable "LINEWATCH_PYTHON_IMAGE" { default = "python:3.13-slim-trixie" }
variable "LINEWATCH_MOSQUITTO_IMAGE" { default = "eclipse-mosquitto:2.0.21" }
# JetPack 7: an image of Ubuntu 24.04 with Python 3.12 and pip; one for the building machine where that is not arm64 and
# the first is not made for it; requirements with a build of ONNX Runtime for the device's GPU. Without: the plain image.
variable "LINEWATCH_JETSON_IMAGE" { default = "" }
variable "LINEWATCH_JETSON_BUILD_IMAGE" { default = "" }
variable "LINEWATCH_JETSON_REQUIREMENTS" { default = "services/inference/requirements.txt" }

# What a device runs, and the plant's side for trying.
group "default" { targets = ["capture", "inference", "forwarder", "console", "broker"] }

target "common" {
  context = "."
  args = {
    VERSION           = VERSION
    REVISION          = REVISION
    CREATED           = CREATED
    SOURCE            = SOURCE
    SOURCE_DATE_EPOCH = SOURCE_DATE_EPOCH
  }
}

target "python" {
  inherits = ["common"]
  args     = { BASE = LINEWATCH_PYTHON_IMAGE, PIP_INDEX_URL = PIP_INDEX_URL != "" ? PIP_INDEX_URL : null }
  secret   = ["id=ca,src=${CA_BUNDLE}"]
}

target "capture" {
  inherits   = ["python"]
  dockerfile = "services/capture/Dockerfile"
  tags       = ["${PREFIX}linewatch/capture:${VERSION}"]
}

target "inference" {
  inherits   = ["python"]
  dockerfile = "services/inference/Dockerfile"
  tags       = ["${PREFIX}linewatch/inference:${VERSION}"]
}

target "inference-jetson" {
  inherits = ["inference"]
  args = {
    BASE         = LINEWATCH_JETSON_IMAGE != "" ? LINEWATCH_JETSON_IMAGE : LINEWATCH_PYTHON_IMAGE
    BUILD_BASE   = LINEWATCH_JETSON_BUILD_IMAGE != "" ? LINEWATCH_JETSON_BUILD_IMAGE : null
    REQUIREMENTS = LINEWATCH_JETSON_REQUIREMENTS
  }
  tags      = ["${PREFIX}linewatch/inference-jetson:${VERSION}"]
  platforms = ["linux/arm64"]
}

target "forwarder" {
  inherits   = ["python"]
  dockerfile = "services/forwarder/Dockerfile"
  tags       = ["${PREFIX}linewatch/forwarder:${VERSION}"]
}

target "console" {
  inherits   = ["python"]
  dockerfile = "services/console/Dockerfile"
  tags       = ["${PREFIX}linewatch/console:${VERSION}"]
}

target "broker" {
  inherits   = ["common"]
  dockerfile = "services/broker/Dockerfile"
  args       = { BASE = LINEWATCH_MOSQUITTO_IMAGE }
  tags       = ["${PREFIX}linewatch/broker:${VERSION}"]
}

target "plant" {
  inherits   = ["python"]
  dockerfile = "plant/Dockerfile"
  tags       = ["${PREFIX}linewatch/plant:${VERSION}"]
}
