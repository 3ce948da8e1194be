"""What an event is: its types, the reader that validates it, limits on its JSON, ids and times of clients."""
