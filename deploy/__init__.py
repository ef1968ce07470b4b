"""Files and programs that run Nearline in containers; part of a source checkout."""
