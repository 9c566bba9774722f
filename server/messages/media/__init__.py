"""Media: what contacts send is kept, what we send is checked before a carrier takes it."""
