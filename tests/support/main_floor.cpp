// Keeps the library non-empty until the first helper arrives.
