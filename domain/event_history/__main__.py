"""Record the shapes of new events, and of new versions of events, as golden files."""

from __future__ import annotations

import json
import sys

from domain.event import plain
from domain.event_history import (
    FOLDER,
    SHARED_WORDS,
    WORDS,
    difference,
    file_name,
    golden_of,
    load,
    load_words,
    only_words_added,
    stored_events,
    word_complaints,
)


def main() -> int:
    """Write the files that are missing; refuse to change what is recorded, and exit with 1 then."""
    recorded = load()
    refused = 0
    for event_class in stored_events():
        name, now = file_name(event_class.TOPIC, event_class.class_version), golden_of(event_class)
        if name in recorded and not only_words_added(recorded[name], now):
            if recorded[name] != now:
                refused += 1
                sys.stderr.write(f"{difference(name, recorded[name], now)}\n")
            continue
        text = json.dumps(now, ensure_ascii=False, indent=2, sort_keys=True)
        (FOLDER / name).write_text(f"{text}\n", "utf-8")
        sys.stdout.write(f"recorded {name}\n")
    for kind in SHARED_WORDS:
        name, words = kind.__name__, [plain(word) for word in kind]
        before = load_words(WORDS).get(name, [])
        if not set(before) <= set(words):
            refused += 1
            sys.stderr.write("".join(f"{complaint}\n" for complaint in word_complaints(kind, {name: before})))
        elif words != before:
            (WORDS / f"{name}.json").write_text(f"{json.dumps(words, indent=2)}\n", "utf-8")
            sys.stdout.write(f"recorded the words of {name}\n")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
