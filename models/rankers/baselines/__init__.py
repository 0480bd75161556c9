"""The models that MIMN is measured against (MIMN, section 5.2), one file each.

All read the same batches, embed with the same tables and end in the same head.
"""
