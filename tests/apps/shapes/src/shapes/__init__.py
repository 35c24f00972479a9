"""An application for the journeys: two modules, src layout, one dependency that only its own environment has."""
