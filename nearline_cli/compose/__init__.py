"""Objects that several commands build from their options."""
