"""What a model can do: `benchmark` asks it test questions, `quiz` asks whether it still knows what
it knew as a text model, `report` tells a whole run on one page."""
