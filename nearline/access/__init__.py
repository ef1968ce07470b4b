"""Who may do what: credentials, rights by method and collection, and the audit log."""
