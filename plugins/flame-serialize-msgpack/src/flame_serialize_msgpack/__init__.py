"""Plain data in any language, by MessagePack."""
