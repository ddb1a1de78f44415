"""A corridor of rooms behind OpenEnv's own server; run by an interpreter that has openenv-core: PORT [drifting]."""

import sys

import uvicorn
from openenv.core.env_server.http_server import create_fastapi_app
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

ROOMS = 5
DRIFTING = sys.argv[2:] == ["drifting"]
begun = 0


class Walk(Action):
    message: str


class Room(Observation):
    text: str
    possible: list[str]


class Corridor(Environment):
    """The treasure lies `seed` modulo 3, plus 1, rooms to the right; a step beyond the end of the corridor is none."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        super().__init__()
        self.room, self.treasure, self.visits = 0, 1, 0

    def reset(self, seed=None, episode_id=None, **_):
        global begun
        begun += 1
        self.room, self.treasure, self.visits = 0, (seed or 0) % 3 + 1, begun
        return self.look()

    def step(self, action, timeout_s=None, **_):
        self.room = min(max(self.room + {"right": 1, "left": -1}.get(action.message, 0), 0), ROOMS)
        return self.look()

    def look(self):
        found = self.room == self.treasure
        drift = f" This corridor was entered {self.visits} times." if DRIFTING and self.room else ""
        return Room(text=f"Room {self.room} of {ROOMS}.{drift} {'The treasure is here.' if found else 'It is empty.'}",
                    possible=[] if found else ["left", "right"], reward=1.0 if found else 0.0, done=found)

    @property
    def state(self):
        return State(step_count=self.room)


if __name__ == "__main__":
    app = create_fastapi_app(Corridor, Walk, Room, max_concurrent_envs=64)
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
