#!/bin/sh
# pip install into the image's environment, as the build's secrets and docker/wheels say: neither ends up in a layer.
set -eu
[ ! -s /run/secrets/pip.conf ] || export PIP_CONFIG_FILE=/run/secrets/pip.conf
[ ! -s /run/secrets/ca.pem ] || export PIP_CERT=/run/secrets/ca.pem
exec /pip/bin/pip --python /opt/venv/bin/python --disable-pip-version-check --quiet \
    install --root-user-action ignore --find-links /wheels --only-binary :all: "$@"
