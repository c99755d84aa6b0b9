"""What the engine is compared with: one contender a file, each the best of its kind we could write.

A contender is a function from a `Task` to something that advances all runs by so many steps.
"""
