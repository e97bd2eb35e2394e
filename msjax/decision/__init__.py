"""What a pilot decides: policies, verdicts, design, sensitivity."""
