"""In which order a fleet is upgraded: a planner, and a checker that shares no code with it."""
