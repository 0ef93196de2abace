#!/usr/bin/env bash
# amqp-publish, amqp-get, amqp-consume and amqp-delete-queue of librabbitmq: tools.sh PORT.
set -euo pipefail
url="amqp://guest:guest@127.0.0.1:$1"
queue="tools-$RANDOM"
amqp-declare-queue -u "$url" -d -q "$queue" >/dev/null
amqp-publish -u "$url" -r "$queue" -p -b hello
[[ $(amqp-get -u "$url" -q "$queue") == hello ]]
code=0
amqp-get -u "$url" -q "$queue" || code=$?
[[ $code == 2 ]]
for number in 1 2 3; do amqp-publish -u "$url" -r "$queue" -p -b "$number"; done
[[ $(amqp-consume -u "$url" -q "$queue" -c 3 -p 1 cat) == 123 ]]
[[ $(amqp-delete-queue -u "$url" -q "$queue") == 0 ]]
echo "ok      amqp-tools"
