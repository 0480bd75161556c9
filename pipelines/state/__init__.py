"""What a record's parts say of the past: features as of any moment, and a check of the parts."""
