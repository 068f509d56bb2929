"""From measures to money, exactly: credits, allocation, statements' waterfall. Integers and Fractions only."""
