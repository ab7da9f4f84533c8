//! What the use cases need of the world, as roles; vendors and stores stand in `adapters`.
