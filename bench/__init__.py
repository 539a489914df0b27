"""What khesht costs, measured: CPU by process, beside a FastAPI program under the same load."""
