"""Problems from files: JSON lines through a memory map, and the datasets known by name."""
