"""Replies of models, and the chats they are kept in."""
