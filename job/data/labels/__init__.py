"""Labels of any type -> what a model is trained on, in an order that does not depend on which row comes first.

The kind of task follows from the values. A data set's own ClassLabel names and text are classes; so are whole numbers.
Floats are regression; lists are several labels a row. In csv all is text: there, labels that are all numbers, and not
all whole, are regression. Class order: the data set's own names; else whole numbers by value ("10" after "2"); else
text in code point order. A model that already has exactly these names keeps its order.

A form that could also be read otherwise is noted with the flag that decides, --problem_type; where a wrong reading
would pass unseen it is rejected.
"""
