#!/bin/sh
# pin-images.sh: writes compose.pinned.yaml, which names each image that compose.yaml takes from a registry by its digest.
#
# Needs Docker and the registries. Look at what changed before you use it:
#     docker compose -f compose.yaml -f compose.pinned.yaml --profile cluster up -d
set -eu
cd "$(dirname "$0")/.."

pinned=compose.pinned.yaml
new=$(mktemp ".$pinned.XXXXXX")
trap 'rm -f "$new"' EXIT
echo "services:" >"$new"
# Lines of a service's name, and of its image where that has a place in a registry.
sed -n 's/^  \([a-z]*\):$/\1/p; s/^    image: \([a-z0-9./-]*\/[a-z0-9.-]*:[a-z0-9.-]*\|[a-z]*:[0-9][a-z0-9.-]*\)$/ \1/p' \
    compose.yaml | while IFS= read -r line; do
    case $line in
    " "*)
        image=${line# }
        digest=$(docker buildx imagetools inspect --format '{{.Manifest.Digest}}' "$image") || {
            echo "$image cannot be looked up: is its registry reached, and is its tag still there?" >&2
            exit 1
        }
        printf '  %s: {image: "%s@%s"}\n' "$service" "$image" "$digest" >>"$new"
        ;;
    *) service=$line ;;
    esac
done
mv "$new" "$pinned"
echo "$pinned is written."
