"""Intervals of whole seconds, both ends included."""

from bisect import bisect_right
from operator import itemgetter


def common(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """What two sorted lists of intervals have in common, both ends included."""
    found, index = [], 0
    for first, last in some:
        while index and others[index - 1][1] >= first:
            index -= 1
        while index < len(others) and others[index][0] <= last:
            if others[index][1] >= first:
                found.append((max(first, others[index][0]), min(last, others[index][1])))
            index += 1
    return found


def inside(stretches: list[tuple[int, int]], time: int) -> bool:
    """Whether one of these intervals, in order and both ends included, has it."""
    index = bisect_right(stretches, time, key=itemgetter(0))
    return index > 0 and stretches[index - 1][1] >= time


def covered(stretches: list[tuple[int, int]], times: int) -> list[tuple[int, int]]:
    """Where at least so many of these intervals overlap, both ends included, in order."""
    edges = sorted([(first, 1) for first, _ in stretches] + [(last + 1, -1) for _, last in stretches])
    found: list[tuple[int, int]] = []
    depth = 0
    for index, (time, change) in enumerate(edges):
        depth += change
        if depth >= times and index + 1 < len(edges) and edges[index + 1][0] > time:
            if found and found[-1][1] == time - 1:
                found[-1] = found[-1][0], edges[index + 1][0] - 1
            else:
                found.append((time, edges[index + 1][0] - 1))
    return found
