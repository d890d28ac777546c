"""Labels of any type -> targets for training, with a class order that does not depend on the order of the rows.

The kind of task follows from the values. ClassLabel names of a dataset, text and integers are classes. Floats are
regression; lists are several labels per row. In csv every value is text: labels that are all numbers, but not all
integers, are regression. Class order: the dataset's own names; else integers by value ("10" after "2"); else text in
code point order. A model that already has exactly these names keeps its order.

Ambiguous values are noted together with the flag that decides, --problem_type; if a wrong reading would go unnoticed,
they are rejected.
"""
