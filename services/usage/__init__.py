"""What calls to models used and cost, one record for each."""
