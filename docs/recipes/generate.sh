#!/usr/bin/env bash
# A picture to a mesh with curl and openssl: generate.sh picture.png mesh.glb
# ORFEAS_URL, ORFEAS_AGENT_ID and ORFEAS_API_KEY say where to and who.
set -euo pipefail

picture=$1 mesh=$2 url=${ORFEAS_URL%/}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

call() { # METHOD TARGET BODY_FILE CURL_OPTIONS...
    local method=$1 target=$2 body=$3 query="" timestamp nonce digest signature
    case $target in *\?*) query=${target#*\?} ;; esac
    timestamp=$(date +%s)
    nonce=$(openssl rand -hex 16)
    digest=$(openssl dgst -sha256 -r "$body" | cut -d ' ' -f 1)
    signature=$(printf 'v1\n%s\n%s\n%s\n%s\n%s\n%s\n%s' "$method" "${target%%\?*}" "$query" "$ORFEAS_AGENT_ID" \
        "$timestamp" "$nonce" "$digest" | openssl dgst -sha256 -hmac "$ORFEAS_API_KEY" -r | cut -d ' ' -f 1)
    curl --silent --show-error --fail-with-body --request "$method" "$url$target" \
        --header "X-Agent-ID: $ORFEAS_AGENT_ID" --header "X-Agent-Timestamp: $timestamp" \
        --header "X-Agent-Nonce: $nonce" --header "X-Agent-Content-SHA256: $digest" \
        --header "X-Agent-Signature: $signature" "${@:4}" || { status=$?; echo >&2; return "$status"; }
}
text() { # NAME JSON: the first text of that name
    grep -o "\"$1\": *\"[^\"]*\"" <<<"$2" | head -n 1 | cut -d '"' -f 4
}
give_up() { echo "$1" >&2; exit 1; }

# The body is what is signed, so it is written down before it is sent.
boundary=$(openssl rand -hex 16)
field="--$boundary\r\nContent-Disposition: form-data; name="
# The boundary is hex, so nothing of it is a format.
# shellcheck disable=SC2059
{
    printf -- "$field\"format\"\r\n\r\n%s\r\n" "${mesh##*.}"
    printf -- "$field\"async\"\r\n\r\ntrue\r\n"
    printf -- "$field\"image\"; filename=\"picture\"\r\nContent-Type: application/octet-stream\r\n\r\n"
    cat -- "$picture"
    printf -- "\r\n--$boundary--\r\n"
} >"$folder/body"

answer=$(call POST /api/agent/generate-3d "$folder/body" --upload-file "$folder/body" \
    --header "Content-Type: multipart/form-data; boundary=$boundary" \
    --header "Idempotency-Key: $(openssl rand -hex 16)") || give_up "$answer"
job=$(text job_id "$answer")

until status=$(text status "$answer") && [ "$status" = completed ]; do
    case $status in failed | cancelled) give_up "$answer" ;; esac
    sleep 1
    answer=$(call GET "/api/agent/status/$job" /dev/null) || give_up "$answer"
done

source=$(text download_url "$answer")
source=${source#"$url"}
# Never follow an answer to another host with a signature in hand.
case $source in /api/agent/download/*) ;; *) give_up "This is no download of $url: $source" ;; esac
call GET "$source" /dev/null --output "$folder/mesh" || give_up "$(cat "$folder/mesh")"
mv -- "$folder/mesh" "$mesh"
