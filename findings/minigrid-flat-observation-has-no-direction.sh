#!/usr/bin/env bash
# minigrid 3.2.0: FlatObsWrapper leaves the direction out, so that different states give one observation.
#
# Seen: the environment observes {"image", "direction", "mission"}; the wrapper's vector holds the image and the mission alone. In
# MiniGrid-Empty-16x16-v0 an agent in the middle of the open room sees the same picture in all four directions: the vectors are
# equal, the directions 0, 1, 2 and 3 are not, and a policy without memory cannot tell where it is heading.
# Output seen on 2026-12-01: "directions: 0, 1, 2, 3; different vectors: 1".
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check "minigrid==3.2.0" "gymnasium==1.4.0" "numpy==2.4.6" 2>/dev/null
"$work/venv/bin/python" - <<'PY' 2>/dev/null
from importlib.metadata import version

import gymnasium
import minigrid  # noqa: F401  registers its environments
from minigrid.wrappers import FlatObsWrapper

plain = gymnasium.make("MiniGrid-Empty-16x16-v0")
flat = FlatObsWrapper(plain)
flat.reset(seed=0)
flat.unwrapped.agent_pos = (7, 7)
directions, vectors = [], set()
for _ in range(4):
    obs, _, _, _, _ = flat.step(0)  # turn left
    directions.append(int(flat.unwrapped.gen_obs()["direction"]))
    vectors.add(obs.tobytes())
print(f"minigrid {version('minigrid')}")
print(f"directions: {', '.join(map(str, sorted(directions)))}; different vectors: {len(vectors)}")
assert sorted(directions) == [0, 1, 2, 3] and len(vectors) == 1, "the behaviour has changed"
PY
