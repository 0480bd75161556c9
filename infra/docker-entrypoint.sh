#!/bin/sh
# What a container runs. `uic` commands as they are; Flink's own as its images take them:
#
#   jobmanager …, taskmanager …    a session cluster (infra/compose.yaml)
#   bash -c "kubernetes-….sh …"    what Flink's Kubernetes operator sends
#
# FLINK_CONF_DIR is a copy in /tmp where the root file system is read-only: Flink's scripts write there.
set -e
# The compiled kernels of the image, where nothing can be written beside them.
if [ -d "${NUMBA_CACHE_DIR:-}" ] && [ ! -w "$NUMBA_CACHE_DIR" ]; then
  cp -R "$NUMBA_CACHE_DIR" /tmp/kernels 2>/dev/null && export NUMBA_CACHE_DIR=/tmp/kernels
fi
case "$1" in
  jobmanager | taskmanager)
    role="$1"
    shift
    if [ -z "${FLINK_CONF_DIR:-}" ]; then
      export FLINK_CONF_DIR=/tmp/flink-conf
      mkdir -p "$FLINK_CONF_DIR" "$FLINK_LOG_DIR"
      cp -R "$FLINK_HOME"/conf/. "$FLINK_CONF_DIR"
    fi
    exec "$FLINK_HOME/bin/$role.sh" start-foreground "$@"
    ;;
  bash | sh | native-k8s | python)
    [ "$1" = native-k8s ] && shift
    exec "$@"
    ;;
  uic)
    exec "$@"
    ;;
  *)
    exec uic "$@"
    ;;
esac
