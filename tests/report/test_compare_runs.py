from __future__ import annotations

from system.report.compare_runs import NONE, differences, flat, labels


def test_fields_that_differ_are_listed_in_the_order_of_the_recipe() -> None:
    one = {"data": {"uri": "a", "views": 2}, "train": {"steps": 5}, "method": {"name": "mgm", "top": {"deep": 1}}}
    two = {"data": {"uri": "a", "views": 4}, "train": {"steps": 5}, "method": {"name": "mgm", "top": {"deep": 2}}}
    three = {"data": {"uri": "a", "views": 2}, "train": {"steps": 5, "extra": 1}, "method": {"name": "videomae"}}
    assert differences([one, two, three]) == [
        ("data.views", ["2", "4", "2"]),
        ("method.name", ["mgm", "mgm", "videomae"]),
        ("method.top.deep", ["1", "2", NONE]),
        ("train.extra", [NONE, NONE, "1"]),
    ]


def test_equal_recipes_differ_in_nothing() -> None:
    recipe = {"data": {"uri": "a"}}
    assert differences([recipe, recipe]) == []


def test_lists_are_values_and_sections_are_not() -> None:
    assert flat({"a": {"b": [1, 2], "c": None}}) == {"a.b": "[1, 2]", "a.c": "None"}


def test_runs_are_named_by_as_much_of_their_place_as_tells_them_apart() -> None:
    assert labels(["/x/a", "/x/b/"]) == ["a", "b"]
    assert labels(["/x/demo", "s3://y/demo"]) == ["x/demo", "y/demo"]
    assert labels(["/x/a", "/x/a"]) == ["/x/a (1)", "/x/a (2)"]
