#!/usr/bin/env bash
# Writes the digest that its registry gives for each image, behind its tag: name:tag -> name:tag@sha256:... Our own image and
# those that have a digest stay as they are.
set -euo pipefail
cd "$(dirname "$0")/.."
files=(Dockerfile deploy/compose.yaml)
grep -hoE '^ARG [A-Z]+_IMAGE=[^ ]+|^ +image: [^ ]+' "${files[@]}" | sed -E 's/^ARG [A-Z]+_IMAGE=|^ +image: //' | sort -u |
	while read -r image; do
		case $image in lfm-serve:* | *@sha256:*) continue ;; esac
		digest=$(skopeo inspect --no-tags --format '{{.Digest}}' "docker://$image") ||
			{ echo "no registry answers for $image: nothing was changed for it" >&2; exit 1; }
		echo "$image@$digest"
		sed -i -E "s#([ =])${image//./\\.}\$#\1$image@$digest#" "${files[@]}"
	done
