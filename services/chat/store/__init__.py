"""Chats, generations, their journal and their runners in PostgreSQL."""
