"""How far files under way are: `realize.mover.progress`."""

from realize.mover.events import End, Progressed
from realize.mover.progress import SAMPLES_BEFORE_BATCH_PROGRESS, Progress
from realize.values import Entry, Kind, Travelled


class Connection:
    """What is on its way, and what was said of it."""

    def __init__(self):
        self.journeys = []
        self.progress = Progress(lambda: self.journeys)
        self.said = []

    def look(self, *journeys):
        """What is said of these; of none, the last ones still hold."""
        self.journeys = [Travelled(*journey) for journey in journeys] or self.journeys
        said, self.said = self.said, []
        self.progress.look(self.said.append)
        said, self.said = self.said, said
        return [(event.path, event.amount) for event in said]


def entries(**sizes):
    """Files of these sizes."""
    return [Entry(name.encode(), Kind.FILE, size) for name, size in sizes.items()]


def test_a_large_file_is_told_at_every_look():
    """What has travelled since the last one, and nothing if nothing has."""
    connection = Connection()

    assert [(b"f", 10)] == connection.look(([b"f"], 10))
    assert [] == connection.look()
    assert [(b"f", 15), (b"g", 1)] == connection.look(([b"f"], 25), ([b"g"], 1))


def test_the_rest_is_told_when_a_file_has_arrived():
    """So that the sum of all is what was sent; the next file of that name begins anew."""
    connection = Connection()
    connection.look(([b"f"], 10))
    events = []
    connection.progress.arrived(b"f", 30, events.append)

    assert [Progressed(b"f", 20)] == events
    assert [(b"f", 5)] == connection.look(([b"f"], 5))


def test_a_file_that_begins_anew_is_told_from_its_start():
    """What travelled before was said already, and travels again."""
    connection = Connection()
    connection.look(([b"f"], 10))
    connection.progress.begun(b"f")

    assert [(b"f", 3)] == connection.look(([b"f"], 3))


def test_a_batch_that_takes_long_is_told_file_by_file():
    """In the order of their contents, and no file has more than its size."""
    connection = Connection()
    with connection.progress.batch(entries(a=10, b=0, c=20)):
        for _ in range(SAMPLES_BEFORE_BATCH_PROGRESS - 1):
            assert [] == connection.look(([b"a", b"b", b"c"], 5))
        assert [(b"a", 5)] == connection.look()
        assert [(b"a", 5), (b"c", 1)] == connection.look(([b"a", b"b", b"c"], 11))
        assert [(b"c", 19)] == connection.look(([b"a", b"b", b"c"], 100))


def test_what_is_left_of_a_batch_is_told_when_all_of_it_has_travelled():
    """It may be long before its files are done; one that was fast is told by its end."""
    connection, events = Connection(), []
    for batch in (entries(a=10, b=20), entries(c=5)):
        with connection.progress.batch(batch):
            files = [(entry.path, entry.size) for entry in batch]
            connection.progress.all_travelled(End.DESTINATION, files, events.append)
            before = len(events)
            for _ in range(SAMPLES_BEFORE_BATCH_PROGRESS):
                connection.look(([batch[0].path], 3))
            connection.progress.all_travelled(End.SOURCE, files, events.append)
            assert before == len(events)
            connection.progress.all_travelled(End.DESTINATION, files, events.append)

    assert [Progressed(b"a", 7), Progressed(b"b", 20), Progressed(b"c", 2)] == events


def test_a_batch_that_nobody_waits_for_any_more_is_not_told():
    """What still comes of it after a run was stopped is of nobody knows which file."""
    connection = Connection()
    with connection.progress.batch(entries(a=10, b=20)):
        for _ in range(SAMPLES_BEFORE_BATCH_PROGRESS):
            connection.look(([b"a", b"b"], 15))

    assert [] == connection.look(([b"a", b"b"], 25))


def test_what_has_ended_is_forgotten():
    """The next file of that name begins anew."""
    connection = Connection()
    connection.look(([b"f"], 10))
    connection.look(([b"g"], 1))

    assert [(b"f", 2)] == connection.look(([b"f"], 2))


def test_a_file_that_travels_once_more_in_another_batch_begins_anew():
    """Also while that batch is too young to be told."""
    connection = Connection()
    for amounts, told in (
        ([5] * SAMPLES_BEFORE_BATCH_PROGRESS, [(b"a", 5)]),
        ([0, *[3] * (SAMPLES_BEFORE_BATCH_PROGRESS - 1)], [(b"a", 3)]),
    ):
        with connection.progress.batch(entries(a=10, b=20)):
            said = [connection.look(([b"a", b"b"], amount)) for amount in amounts]
        assert [*[[]] * (SAMPLES_BEFORE_BATCH_PROGRESS - 1), told] == said


def test_between_stores_of_one_machine_what_is_written_is_told():
    """There is nothing to look at, and looking changes nothing."""
    progress, events = Progress(), []
    progress.written(b"f", 10, events.append)
    progress.look(events.append)
    progress.written(b"f", 15, events.append)

    assert not progress.watches
    assert [Progressed(b"f", 10), Progressed(b"f", 5)] == events


def test_over_a_connection_what_is_written_is_not_told():
    """It may wait for long before it travels."""
    progress, events = Progress(list), []
    progress.written(b"f", 10, events.append)

    assert [] == events
