"""Bytes to a typed frame, strictly: CSV, JSON lines and Parquet as a table's spec describes them.

A file that cannot be read as a whole is an InputError. A value that cannot be read as its column's type becomes null,
and the column gets one failed check: the audit then fails with the value named. Nothing is ever guessed or repaired.

    delimited.py   read_csv
    jsonlines.py   read_jsonl
    parquet.py     read_parquet (loads pyarrow)
    values.py      text to each column type; what they share
"""
