"""What people read after a rehearsal: one page (html), one story (terminal), one progress display.

Everything here is a view of the report dictionary: it computes no figure that the report lacks,
except sums of money and differences of two shown numbers.
"""
