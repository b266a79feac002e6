"""Jobs in the database: values, tables, leases, expiry, progress."""
